# label: long
# The committed pages are what their sources build to.
set -u
skip() { # also where everything else is required: Debian 12 has no Node that is new enough
    echo "skipped: $*"
    exit 77
}
command -v npm >/dev/null || skip "Node is missing (scripts/setup --page installs it)"
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    skip "Node $(node -v) is older than 20.19"
got=0
scripts/web --check || got=$?
[ "$got" = 3 ] && skip "npm could not obtain the packages of web/"
exit "$got"
