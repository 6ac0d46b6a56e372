"""The temporal critic, its neurons and their resets."""
