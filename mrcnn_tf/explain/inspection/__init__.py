"""A look at a dataset and at what a model makes of it: errors, confusion, curves, the worst images, and a report."""





