"""The parts of the suite `finetune`: the network that learns, the images it sees, the recipe it follows."""
