"""What models compute, for anybody who predicts: torch alone, no training framework."""
