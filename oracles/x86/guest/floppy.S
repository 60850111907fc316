/* Boot sector for Bochs: real mode to flat 32-bit protected mode, then the guest's entry. EAX is not multiboot's. */
        .code16
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     $0x2401, %ax            /* BIOS: enable A20 */
        int     $0x15
        lgdtl   table_pointer
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $0x08, $protected_mode
        .code32
protected_mode:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     $0x100010, %ecx
        jmp     *%ecx
        .balign 8
table:  .quad   0
        .quad   0x00cf9a000000ffff
        .quad   0x00cf92000000ffff
table_pointer:
        .word   table_pointer - table - 1
        .long   table
        .org    510
        .word   0xaa55
