"""Init data for authors: render documents, look at them in every form they travel in, check and compare them.

Pure functions of bytes and text; nothing here reads a file, asks a broker or vouches for a guest.
"""
