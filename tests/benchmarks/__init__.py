"""How fast it is, against floors measured in the same run: ``make bench``. One file for each subject."""
