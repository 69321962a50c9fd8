# label: long
# runs alone
# The ratios of this build beside those recorded for this machine (bench/peers/regress says how it meets noise).
# Skipped, with the reason, where none are recorded or other programs keep the processors busy.
set -u
exec bench/peers/regress --keyhole "${KEYHOLE:?KEYHOLE names the binary under test}"
