"""The review: one page on which a person sees whether to trust a verdict."""
