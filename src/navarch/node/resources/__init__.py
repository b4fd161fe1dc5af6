"""CPU, memory and other resources of the node: amounts, cgroups, pressure."""
