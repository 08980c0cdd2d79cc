"""Which part of the split each track is in: train, valid or test.

A *group* is what may never be on both sides of a split: the artist where known, else the track;
tracks with identical audio are in one group whatever the table says (groups.py). Protocols draw the
split from whole tracks (protocols.py), balanced by genre (folds.py). Only `random-chunks` splits
tracks into chunks first, on purpose; it is marked leaky.
"""
