"""What a person reads: figures, numbers as JSON, and files that are whole or not there.

It draws and writes what it is given: maps, debiased saliency, attacks, training curves. It runs no network.
"""
