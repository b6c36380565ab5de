"""Commands run elsewhere: as a ClearML task, by an agent, with the result of the same command here."""
