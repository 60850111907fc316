#!/bin/sh
set -e; cd "$(dirname "$0")"
aarch64-linux-gnu-gcc -march=armv8.2-a+nosimd -mgeneral-regs-only -mstrict-align -O2 -ffreestanding -fno-pic -fno-stack-protector -fno-builtin -nostdlib -c guest.c -o guest.o
aarch64-linux-gnu-gcc -march=armv8.2-a -c start.S -o start.o
aarch64-linux-gnu-ld -T link.ld start.o guest.o -o guest.elf
