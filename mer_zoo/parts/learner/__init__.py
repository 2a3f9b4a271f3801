"""Models without gradient descent: fitted at once, to be compared with those that train."""
