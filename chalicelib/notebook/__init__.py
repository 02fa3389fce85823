"""A notebook's life: its states, and how it comes from one to the next."""
