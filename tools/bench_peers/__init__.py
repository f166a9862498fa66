"""pcc beside other engines: same network, same weights, one pinned thread, rounds that take turns."""
