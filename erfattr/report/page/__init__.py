"""One self-contained HTML page a run: what it shows of a network, and how maps travel inside it.

It takes what was measured and writes one file; the template, its style and its script lie beside the code.
Nothing here runs a network (that is the command's part) and nothing draws with matplotlib.
"""
