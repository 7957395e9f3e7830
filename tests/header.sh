#!/bin/sh
# Compiles each public header alone, and twice in one file, in every language standard that the docs promise, with
# warnings as errors.
set -eu

cd "$(dirname "$0")/.."
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
checked=0

compile() {
    compiler=$1 standard=$2 source=$3
    # shellcheck disable=SC2086 # The warnings are words.
    $compiler -std="$standard" $warnings -Iinclude -fsyntax-only "$source" ||
        { echo "header.sh: $source does not compile as $standard" >&2; exit 1; }
    checked=$((checked + 1))
}

printf '#include "raft/raft.h"\n#include "raft/raft.h"\nint main(void);\nint main(void) { return 0; }\n' >"$folder/alone.c"
printf '#include "raft/raft.h"\n#include "raft/raft.h"\nint main() { return 0; }\n' >"$folder/alone.cpp"
for standard in c99 c11 c17 c2x gnu17; do
    compile "${CC:-cc} -Wstrict-prototypes" "$standard" "$folder/alone.c"
done
for standard in c++11 c++14 c++17 c++20; do
    compile "${CXX:-c++}" "$standard" "$folder/alone.cpp"
done
echo "include/raft/raft.h alone: $checked passed, 0 failed"
