"""Speed, memory and scale figures of the product on the local cloud (`make bench`)."""
