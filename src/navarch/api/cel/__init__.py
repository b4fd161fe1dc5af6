"""CEL as Kubernetes speaks it: parsed, type checked, priced and evaluated.

    text ── lexer, parser (macros) ──▶ ast ── checker (types, declarations) ──▶ checked ast
    checked ast ── estimate (schema's sizes) ──▶ CostEstimate          written rules are bounded by it
    checked ast ── planner ──▶ closures over a frame ──▶ value | CelError    evaluation is bounded by counted cost

`environment` is the way in. Everything is pure; nothing in here knows of requests, policies or custom resources.
"""
