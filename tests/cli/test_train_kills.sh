# Runs that are killed at random moments, 50 times; test_train.py has the short version.
# label: long
KEYHOLE_KILLS=50 exec python3 tests/cli/test_train.py train_killed
