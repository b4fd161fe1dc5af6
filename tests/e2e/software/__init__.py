"""Objects with the features of those that widely used software brings: none of it is a copy, all of it is asked for.

Each `.yaml` file is what one kind of software is installed with; `big.py` makes the definitions that are too large to
write down. A comment says whose manifests have the feature.
"""
