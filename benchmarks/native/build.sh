#!/bin/sh
# build.sh TREE PROGRAM.c OUT.so: the core of a tree, with its flags, and a program that measures it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$1 program=$2 out=$3
flags="-O3 -g0 -std=gnu11 -ffp-contract=off -fno-math-errno -fno-lto -fopenmp -fPIC
-fvisibility=hidden -I$tree/src -I$here ${CFLAGS:-}"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compilers=
isas=$(tr '\n' ' ' < "$tree/src/cpu/isas.def")
for file in $(cd "$tree/src" && find . -name '*.c' | sed 's|^./||') "$here/$program"; do
    isa_flags=
    case $file in
    */isa/neon*) [ "$(uname -m)" = aarch64 ] || continue ;;
    */isa/avx*) [ "$(uname -m)" = x86_64 ] || continue ;;
    esac
    case $file in
    */isa/*)
        isa=$(basename "$file" | cut -d_ -f1)
        isa_flags=$(echo "$isas" | sed -nE "s/.*FL_ISA.$isa,[^\"]*\"([^\"]*)\".*/\1/p")
        ;;
    esac
    case $file in /*) source=$file ;; *) source=$tree/src/$file ;; esac
    ${CC:-cc} $flags $isa_flags -c "$source" -o "$objects/$(echo "$file" | tr / _).o" &
    compilers="$compilers $!"
done
for compiler in $compilers; do wait "$compiler"; done
${CC:-cc} -shared -fopenmp "$objects"/*.o -o "$out" -lm -lpthread
