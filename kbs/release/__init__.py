"""The Relying Party role: token → policy → plugin → sealed response. The one door out."""
