"""Devices of claims on a node: drivers that register, claims that they prepare, devices that containers get."""
