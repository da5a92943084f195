"""Manifests that vendors publish, CoRIM and SWID RIM, read into plain records. Nothing here knows who signed them."""
