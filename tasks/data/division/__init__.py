"""Which rows are trained on and which are evaluated, decided on an index of all of them."""
