"""Admission policies: what their objects compile to (`model`), which writes they are for (`matching`), what they are
given (`params`), how they are evaluated (`evaluation`), and what they make of objects (`mutations`).

A policy is compiled once, when it changes; `admission/policies.py` runs what was compiled.
"""
