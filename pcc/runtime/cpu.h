/* Whether this processor has the instructions that the kernels use. */
#ifndef PCC_CPU_H
#define PCC_CPU_H

/* The first feature of the instruction set that the processor or the system lacks, or NULL; an instruction set that is not known is what lacks itself. */
const char *pcc_cpu_lacks(const char *isa);

#endif
