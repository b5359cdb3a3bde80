"""Groups become tasks: a module for each kind of group."""
