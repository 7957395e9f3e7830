#!/bin/sh
# Makes programs that the tests call available, and links them into .tools/bin, which `make` puts first in PATH.
# What is in PATH already is taken as it is. Else Debian's package is installed where we are root; where we are not, it
# and what it depends on are fetched and unpacked into .tools/, and started with that folder's libraries.
#
#     tests/tools.sh redis-cli redis-benchmark strace c++
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/.tools
mkdir -p "$tools/bin"

package_of() {
    case $1 in
        redis-*) echo redis-tools ;;
        c++) echo g++ ;;
        *) echo "$1" ;;
    esac
}

# Unpacks a package and, one level deep, the libraries that it needs, as no root is there to install them.
unpack() {
    package=$1
    mkdir -p "$tools/packages" "$tools/root"
    cd "$tools/packages"
    wanted="$package $(apt-cache depends --important "$package" | sed -n 's/^ *Depends: \([^<]*\)$/\1/p')"
    for name in $wanted; do
        # The C library is here already, or nothing would run.
        [ "$name" = libc6 ] || apt-get download -q "$name"
    done
    for file in ./*.deb; do
        dpkg -x "$file" "$tools/root"
    done
    cd "$root"
}

for program in "$@"; do
    if command -v "$program" >/dev/null 2>&1 || [ -x "$tools/bin/$program" ]; then
        continue
    fi
    package=$(package_of "$program")
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "tests/tools.sh: '$program' is missing, and there is no apt-get to get it: install it" >&2
        exit 1
    fi
    echo "tests/tools.sh: '$program' is missing: getting Debian's $package"
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package" >/dev/null 2>&1 ||
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package" >/dev/null; }
    else
        [ "$program" != c++ ] || { echo "tests/tools.sh: install a C++ compiler (Debian: g++)" >&2; exit 1; }
        unpack "$package"
        libraries=$(find "$tools/root" -type d -path '*lib/*-linux-gnu*' | tr '\n' ':')
        real=$(find "$tools/root" \( -type f -o -type l \) -path "*bin/$program" | head -n 1)
        [ -n "$real" ] || { echo "tests/tools.sh: $package holds no $program" >&2; exit 1; }
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s${LD_LIBRARY_PATH-} exec %s "$@"\n' "$libraries" "$real" \
            >"$tools/bin/$program"
        chmod +x "$tools/bin/$program"
        "$tools/bin/$program" --version >/dev/null || { rm "$tools/bin/$program"; exit 1; }
    fi
done
