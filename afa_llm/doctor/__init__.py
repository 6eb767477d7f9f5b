"""`afa doctor`: is every node ready for the run? Facts are asked from the nodes, judged here, told in one table."""
