"""A small interpreter for Jinja templates from strangers: a whitelist of operations, a budget, and text that knows where it came from.

Jinja's own parser reads the template; its compiler, which turns templates into Python, is never used. To read in order: budget, text,
values, operators, methods, filters, library, expressions, statements.
"""
