"""Near duplicates: texts → shingles → MinHash signatures → clusters."""
