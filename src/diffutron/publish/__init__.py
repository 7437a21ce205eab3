"""From a run or a model to a folder that others can trust: plain files, a card of measured numbers, nothing hidden."""
