# The accelerator on a PYNQ-Z2: Vivado project, block design and bitstream.
#
#   vivado -mode batch -source syn/boards/pynq_z2/project.tcl [-tclargs MODULES [MHZ]]
#
# Leaves clipq.bit and clipq.hwh for host/board.py in build/pynq_z2. Not run here: Vivado is not at hand. The names of
# cells are those that host/board.py uses.

set here [file dirname [file normalize [info script]]]
set root [file normalize [file join $here .. .. ..]]
set out [file join $root build pynq_z2]
set modules [expr {[llength $argv] > 0 ? [lindex $argv 0] : 4}]
set mhz [expr {[llength $argv] > 1 ? [lindex $argv 1] : 100}]

create_project clipq $out -part xc7z020clg400-1 -force
add_files -norecurse [glob [file join $root rtl *.sv] [file join $root rtl * *.sv] [file join $here clipq_axi.v]]
update_compile_order -fileset sources_1

create_bd_design clipq

# DDR and pins are set up by the board's boot image; the overlay uses a clock, an interrupt and two bus ports.
create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7:5.5 ps
set_property -dict [list \
    CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $mhz \
    CONFIG.PCW_USE_M_AXI_GP0 1 \
    CONFIG.PCW_USE_S_AXI_HP0 1 \
    CONFIG.PCW_S_AXI_HP0_DATA_WIDTH 64 \
    CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \
    CONFIG.PCW_IRQ_F2P_INTR 1 \
] [get_bd_cells ps]

create_bd_cell -type module -reference clipq_axi clipq_accel
set_property CONFIG.NUM_MODULES $modules [get_bd_cells clipq_accel]

# 26 bits of length hold any network's weights.
foreach {dma direction stream} {
    weights_dma mm2s s_axis_prog
    images_dma  mm2s s_axis_image
    results_dma s2mm m_axis_result
} {
    create_bd_cell -type ip -vlnv xilinx.com:ip:axi_dma:7.1 $dma
    set sends [expr {$direction eq "mm2s"}]
    set_property -dict [list \
        CONFIG.c_include_sg 0 \
        CONFIG.c_sg_length_width 26 \
        CONFIG.c_include_mm2s $sends \
        CONFIG.c_include_s2mm [expr {!$sends}] \
        CONFIG.c_m_axi_${direction}_data_width 64 \
    ] [get_bd_cells $dma]
    if {$sends} {
        set_property CONFIG.c_m_axis_mm2s_tdata_width 64 [get_bd_cells $dma]
        connect_bd_intf_net [get_bd_intf_pins $dma/M_AXIS_MM2S] [get_bd_intf_pins clipq_accel/$stream]
    } else {
        connect_bd_intf_net [get_bd_intf_pins clipq_accel/$stream] [get_bd_intf_pins $dma/S_AXIS_S2MM]
    }
}

# Registers of the accelerator and of the engines; memory of the engines.
create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect:1.0 control
set_property -dict [list CONFIG.NUM_SI 1 CONFIG.NUM_MI 4] [get_bd_cells control]
connect_bd_intf_net [get_bd_intf_pins ps/M_AXI_GP0] [get_bd_intf_pins control/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins control/M00_AXI] [get_bd_intf_pins clipq_accel/s_axil]
connect_bd_intf_net [get_bd_intf_pins control/M01_AXI] [get_bd_intf_pins weights_dma/S_AXI_LITE]
connect_bd_intf_net [get_bd_intf_pins control/M02_AXI] [get_bd_intf_pins images_dma/S_AXI_LITE]
connect_bd_intf_net [get_bd_intf_pins control/M03_AXI] [get_bd_intf_pins results_dma/S_AXI_LITE]

create_bd_cell -type ip -vlnv xilinx.com:ip:smartconnect:1.0 memory
set_property -dict [list CONFIG.NUM_SI 3 CONFIG.NUM_MI 1] [get_bd_cells memory]
connect_bd_intf_net [get_bd_intf_pins weights_dma/M_AXI_MM2S] [get_bd_intf_pins memory/S00_AXI]
connect_bd_intf_net [get_bd_intf_pins images_dma/M_AXI_MM2S] [get_bd_intf_pins memory/S01_AXI]
connect_bd_intf_net [get_bd_intf_pins results_dma/M_AXI_S2MM] [get_bd_intf_pins memory/S02_AXI]
connect_bd_intf_net [get_bd_intf_pins memory/M00_AXI] [get_bd_intf_pins ps/S_AXI_HP0]

create_bd_cell -type ip -vlnv xilinx.com:ip:xlconcat:2.1 interrupts
set_property CONFIG.NUM_PORTS 4 [get_bd_cells interrupts]
connect_bd_net [get_bd_pins clipq_accel/irq] [get_bd_pins interrupts/In0]
connect_bd_net [get_bd_pins weights_dma/mm2s_introut] [get_bd_pins interrupts/In1]
connect_bd_net [get_bd_pins images_dma/mm2s_introut] [get_bd_pins interrupts/In2]
connect_bd_net [get_bd_pins results_dma/s2mm_introut] [get_bd_pins interrupts/In3]
connect_bd_net [get_bd_pins interrupts/dout] [get_bd_pins ps/IRQ_F2P]

create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset:5.0 reset
connect_bd_net [get_bd_pins ps/FCLK_RESET0_N] [get_bd_pins reset/ext_reset_in]
foreach pin {
    ps/M_AXI_GP0_ACLK ps/S_AXI_HP0_ACLK reset/slowest_sync_clk control/aclk memory/aclk clipq_accel/aclk
    weights_dma/s_axi_lite_aclk images_dma/s_axi_lite_aclk results_dma/s_axi_lite_aclk
    weights_dma/m_axi_mm2s_aclk images_dma/m_axi_mm2s_aclk results_dma/m_axi_s2mm_aclk
} {
    connect_bd_net [get_bd_pins ps/FCLK_CLK0] [get_bd_pins $pin]
}
foreach pin {
    control/aresetn memory/aresetn clipq_accel/aresetn
    weights_dma/axi_resetn images_dma/axi_resetn results_dma/axi_resetn
} {
    connect_bd_net [get_bd_pins reset/peripheral_aresetn] [get_bd_pins $pin]
}

assign_bd_address
validate_bd_design
save_bd_design

set design [get_files clipq.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top clipq_wrapper [current_fileset]
launch_runs impl_1 -to_step write_bitstream
wait_on_run impl_1
if {[get_property STATS.WNS [get_runs impl_1]] < 0} {
    error "the design misses $mhz MHz: give a lower clock (-tclargs $modules MHZ)"
}
file copy -force [file join $out clipq.runs impl_1 clipq_wrapper.bit] [file join $out clipq.bit]
file copy -force [file join $out clipq.gen sources_1 bd clipq hw_handoff clipq.hwh] [file join $out clipq.hwh]
