"""The only room, with preprocess.py, that knows Ray: trials on a cluster, and what is seen of them."""
