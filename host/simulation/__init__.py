"""Building and running simulations."""
