"""What can be typed: a module for each command, and the groups of options that several share.

Plain argparse, imported whole by every ``erfattr --help``: nothing here may import torch. What a command does
with its options lives in the module of the same name one folder up.
"""
