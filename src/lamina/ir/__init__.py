"""What a computation is: an immutable graph of typed nodes, and the ops that nodes apply."""
