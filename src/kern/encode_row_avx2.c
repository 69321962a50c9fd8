/* The encoders with registers of eight lanes: twice as many rows a second as the plain ones. */
#define ENCODE_OF kh_encode_of_avx2
#include "kern/encode_table.h"
