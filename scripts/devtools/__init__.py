"""What the programs of scripts/ and the tests share."""
