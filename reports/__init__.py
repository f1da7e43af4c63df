"""Reports: Records -> tables and pages. One row per form of output."""

from bench.registry import Entry

TABLE = {
    "terminal": Entry("reports.terminal:show", "one record as a table on the terminal"),
    "compare": Entry("reports.compare:run", "two records, paired on the same samples"),
    "compare-text": Entry("reports.comparetext:render", "a comparison for the terminal"),
    "arms": Entry("reports.arms:run", "two arms of trainings: what their method gains, over seeds and images"),
    "arms-text": Entry("reports.arms:render", "the arms for the terminal"),
    "gate": Entry("reports.gate:run", "is the candidate worse than the baseline"),
    "gate-text": Entry("reports.gateforms:render", "the gate's report for the terminal"),
    "gate-markdown": Entry("reports.gateforms:markdown", "the gate's report for a job's summary page"),
    "gate-junit": Entry("reports.gateforms:junit", "the gate's report as JUnit XML"),
    "gate-annotations": Entry("reports.gateforms:workflow_commands", "the gate's report as GitHub annotations"),
    "references": Entry("reports.reference:listing", "released checkpoints and their published values"),
    "verify": Entry("reports.verify:Verification", "a run held against published values"),
    "inspection": Entry("reports.inspection:render", "a card: how a checkpoint was read"),
    "site": Entry("reports.site:publish", "the ledger as a self-contained page, with Markdown and CSV beside it"),
}
