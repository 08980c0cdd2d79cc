"""What the commands share: how they end, and how they show progress. Never imports Ray or torch."""
