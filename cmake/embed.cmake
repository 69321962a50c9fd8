# cmake -DIN=<file> -DOUT=<file.c> -DHEADER=<include> -DNAME=<variable> -P embed.cmake: a C file that
# holds the bytes of IN as NAME, NAME_size of them, with a zero byte behind.

cmake_minimum_required(VERSION 3.20)

file(READ ${IN} bytes HEX)
string(LENGTH "${bytes}" size)
math(EXPR size "${size} / 2")
string(REPEAT "[0-9a-f]" 32 row)
string(REGEX REPLACE "(${row})" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT}.new "/* Written by the build from ${IN}. */
#include \"${HEADER}\"

const size_t ${NAME}_size = ${size};
const unsigned char ${NAME}[] = {
${bytes}0};
")
file(RENAME ${OUT}.new ${OUT})
