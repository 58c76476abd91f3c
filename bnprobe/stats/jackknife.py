"""The error of any statistic, from what it would have been without each group of the data."""
