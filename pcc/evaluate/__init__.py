"""What a network is worth on data: accuracy with intervals, and what it does differently from another."""
