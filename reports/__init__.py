"""Reports: Records -> tables and pages. One row per form of output."""

from bench.registry import Entry

TABLE = {
    "terminal": Entry("reports.terminal:show", "one record as a table on the terminal"),
    "compare": Entry("reports.compare:run", "two records, paired on the same samples"),
    "gate": Entry("reports.gate:run", "is the candidate worse than the baseline"),
    "inspection": Entry("reports.inspection:render", "a card: how a checkpoint was read"),
    "site": Entry("reports.site:publish", "the ledger as a self-contained page, with Markdown and CSV beside it"),
}
