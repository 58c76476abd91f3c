"""What a checkpoint reveals without data: its norms, found by the names and shapes of tensors, as a recording.

A recording of weights only has records with no call and empty statistics, so that the measures, rules and
pages of any other recording serve. Nothing is executed, unless an architecture is named: then that is
built, the file is loaded into it, and one blank input shows how its layers are wired.
"""
