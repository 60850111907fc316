/* Where things lie in the guest's 256 MiB; oracles/x86/protocol.py names the same addresses. */
#define CONTROL         0x200000
#define CONTROL_LA57    16
#define ROOTS           0x400000        /* four roots */
#define ROOTS_END       0x404000
#define HARNESS_PML4    0x404000
#define HARNESS_PDPT    0x405000
#define IDENTITY_PD     0x406000
#define USER_PD         0x407000
#define HARNESS_END     0x480000        /* test tables from 0x440000 */
#define CELLS           0x8000000
#define CELLS_END       0x10000000
#define USER_VIEW       0x40000000
#define CELL_FIRST      0xb8            /* a cell: mov eax, <its address / 8>; int 0x20; nop */
#define MARK            0x5a            /* what a store leaves in a cell's first byte */
