"""Message passing: interchangeable layouts of the same edges, proved equal."""
