// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registers and removes virtio-mmio platform devices in a running guest, for kernels whose driver
 * takes them from the command line, the device tree or ACPI only. Two parameters, in
 * /sys/module/upcall_mmio/parameters, "add" and "remove", take one window each as the driver's own
 * parameter "device" has it: <size>@<base>:<irq>. What was added is in /sys/devices/upcall-mmio.
 *
 * A write fails with EEXIST (the window or the irq is another virtio-mmio device's), ENODEV (no
 * window was added with that base, size and irq), EBUSY (the resource tree refuses it) or EINVAL.
 */
#include <linux/acpi.h>
#include <linux/module.h>
#include <linux/of_irq.h>
#include <linux/platform_device.h>

/* Several windows may share this line; any other line is one window's. */
#define SHARED_IRQ 5
/* The GIC's interrupts 32 to 1019. Its driver maps a number beyond them all the same. */
#define GIC_SPIS 988

/* As the request had it, and its line as the kernel counts them. Each device's platform data. */
struct window {
	u64 base, size;
	u32 irq;
	int virq;
	struct platform_device *pdev;
};

/* Of all devices added here, while the module is up. The parameters' lock guards all of this. */
static struct device *parent;

#ifndef CONFIG_ACPI
#define acpi_register_gsi(dev, gsi, trigger, polarity) (-EINVAL)
#endif

/* On x86 the irq is a GSI, the ISA lines among them being set up from boot; on arm64 a GIC SPI. */
static int map_irq(u32 irq)
{
	struct of_phandle_args spi = { .args_count = 3, .args = { 0, irq, IRQ_TYPE_EDGE_RISING } };
	u32 gsi = IS_ENABLED(CONFIG_X86) ? irq : irq + 32;

	if (IS_ENABLED(CONFIG_X86) && irq < 16)
		return irq ?: -EINVAL;
	if (!IS_ENABLED(CONFIG_X86) && irq >= GIC_SPIS)
		return -EINVAL;
	if (IS_ENABLED(CONFIG_X86) || !acpi_disabled)
		return acpi_register_gsi(NULL, gsi, ACPI_EDGE_SENSITIVE, ACPI_ACTIVE_HIGH);
	spi.np = of_irq_find_parent(of_find_node_by_path("/"));
	return spi.np ? irq_create_of_mapping(&spi) ?: -EINVAL : -ENODEV;
}

static int parse(const char *text, struct window *window)
{
	char *at;
	int end = 0;

	window->size = memparse(text, &at);
	if (sscanf(at, "@%lli:%u %n", &window->base, &window->irq, &end) != 2 || at[end])
		return -EINVAL;
	/* The mapping stays: a caller that asks for the same line again gets the same number. */
	window->virq = map_irq(window->irq);
	if (window->virq < 0)
		return -EINVAL;
	return IS_ERR_OR_NULL(parent) ? -ENODEV : 0;
}

/*
 * Devices from ACPI bear their hardware id, those from the device tree what they are compatible
 * with, all others the driver's name. Those from the device tree have no irq among their resources.
 */
static int overlaps(struct device *dev, void *data)
{
	struct platform_device *pdev = to_platform_device(dev);
	bool of_tree = of_device_is_compatible(dev->of_node, "virtio,mmio");
	const struct window *new = data;
	const struct resource *res;

	if (!of_tree && strcmp(pdev->name, "virtio-mmio") && strncmp(pdev->name, "LNRO0005", 8))
		return 0;
	if (of_tree && new->irq != SHARED_IRQ && platform_get_irq_optional(pdev, 0) == new->virq)
		return -EEXIST;
	for (res = pdev->resource; res < pdev->resource + pdev->num_resources; res++) {
		if (resource_type(res) == IORESOURCE_MEM &&
		    res->start <= new->base + new->size - 1 && res->end >= new->base)
			return -EEXIST;
		if (resource_type(res) == IORESOURCE_IRQ &&
		    res->start == new->virq && new->irq != SHARED_IRQ)
			return -EEXIST;
	}
	return 0;
}

static int add(const char *text, const struct kernel_param *param)
{
	struct window new = {};
	int ret = parse(text, &new) ?: bus_for_each_dev(&platform_bus_type, NULL, &new, overlaps);
	struct resource res[] = { DEFINE_RES_MEM(new.base, new.size), DEFINE_RES_IRQ(new.virq) };

	return ret ?: PTR_ERR_OR_ZERO(platform_device_register_resndata(
		parent, "virtio-mmio", PLATFORM_DEVID_AUTO, res, ARRAY_SIZE(res), &new, sizeof(new)));
}

static int find(struct device *dev, void *data)
{
	const struct window *window = dev_get_platdata(dev);
	struct window *old = data;

	if (window->base != old->base || window->size != old->size || window->irq != old->irq)
		return 0;
	old->pdev = to_platform_device(dev);
	return 1;
}

static int remove(const char *text, const struct kernel_param *param)
{
	struct window old;
	int ret = parse(text, &old);

	if (!ret && !device_for_each_child(parent, &old, find))
		ret = -ENODEV;
	if (!ret)
		platform_device_unregister(old.pdev);
	return ret;
}

static const struct kernel_param_ops add_ops = { .set = add };
static const struct kernel_param_ops remove_ops = { .set = remove };
module_param_cb(add, &add_ops, NULL, 0200);
module_param_cb(remove, &remove_ops, NULL, 0200);

static int unregister(struct device *dev, void *data)
{
	platform_device_unregister(to_platform_device(dev));
	return 0;
}

static int __init enter(void)
{
	parent = root_device_register("upcall-mmio");
	return PTR_ERR_OR_ZERO(parent);
}

static void __exit leave(void)
{
	struct device *root = parent;

	/* The parameters can still be written to. */
	kernel_param_lock(THIS_MODULE);
	parent = NULL;
	kernel_param_unlock(THIS_MODULE);
	device_for_each_child(root, NULL, unregister);
	root_device_unregister(root);
}

module_init(enter);
module_exit(leave);
MODULE_SOFTDEP("pre: virtio_mmio");
MODULE_DESCRIPTION("virtio-mmio devices, added and removed at run time");
MODULE_LICENSE("GPL");
